"""What perturbations cost: paired contrasts, doses, flips, and the questions named beforehand."""
