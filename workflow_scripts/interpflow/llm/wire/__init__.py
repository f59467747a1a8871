"""The wire formats of services: bodies, replies, failures, addresses, as their SDKs carry them."""
