"""What Generate and the tasks share: prompt, settings, run, result, history."""
