"""Components and styles that every tab may use; nothing of one tab."""
