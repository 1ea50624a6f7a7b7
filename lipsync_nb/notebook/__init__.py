"""How objects show themselves: markup, charts, displays, reports."""
