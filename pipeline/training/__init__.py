"""Training of each part from zero; imported late, by the command line and the tabs that train."""
