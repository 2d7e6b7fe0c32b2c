"""Components, HTML and styles that several tabs use."""
