"""The former name of pipeline.samplers.convergence, kept so that `python -m` still runs it."""

from .convergence import main

if __name__ == "__main__":
    main()
