"""What each layer plan costs a model, tested on held-out items, and claims named beforehand."""
