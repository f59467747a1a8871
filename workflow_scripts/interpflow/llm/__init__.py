"""Language-model services behind one interface: roles, a store that buys once, one hard cap."""
