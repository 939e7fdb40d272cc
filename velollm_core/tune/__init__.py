"""Search over knobs by measurement: a model, a race, a confirmation, a profile."""
