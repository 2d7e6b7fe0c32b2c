"""The part of the page that all task tabs share: prompt, settings, run, result and history."""
