"""What the residual stream says at each depth: logit lens, tuned lens, bias-only lens."""
