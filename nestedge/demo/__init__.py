"""The demo: a small network on scikit-learn's handwritten digits."""
