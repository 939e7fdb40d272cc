"""Advice with a reason: rules that propose, and a planner that makes one plan of it."""
