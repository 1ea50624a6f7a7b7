"""How to render: the configuration, its presets, and who gets which cores."""
