"""Acquire, train, finetune, quantize and describe models."""
