"""Verbs over the machinery: each plans, then executes."""
