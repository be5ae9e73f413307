"""How fast memories add, find and open, side by side: `python -m benchmarks`, see docs/explanation/speed.md."""

from .speed.command import main

if __name__ == "__main__":
    main()
