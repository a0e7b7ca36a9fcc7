"""Tests of the cloud in a box."""
