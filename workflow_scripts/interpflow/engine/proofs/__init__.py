"""What is proven of a loaded model before anything of it is believed."""
