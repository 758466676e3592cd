"""Measurements of artifacts on the device that this runs on: latency, load time, accuracy."""
