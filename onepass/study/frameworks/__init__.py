"""The textbook's airfoil experiment in every framework: each in one file, all from the same random numbers.

``onepass train airfoil --framework all`` runs them side by side, each in a process of its own;
``python -m onepass.study.frameworks NAME`` runs one here, and needs that framework and NumPy alone.
"""

from onepass.study.frameworks.experiment import NAMES

__all__ = ["NAMES"]
