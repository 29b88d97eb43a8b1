"""Widgets that open the model: any layer, any head, any token."""
