"""The automated researcher: typed actions, registered predictions, verdicts by rule."""
