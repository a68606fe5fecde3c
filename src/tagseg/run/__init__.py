"""Workspace, devices and progress."""
