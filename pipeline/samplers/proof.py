"""An earlier name of `python -m pipeline.samplers.convergence`."""

from .convergence import main

if __name__ == "__main__":
    main()
