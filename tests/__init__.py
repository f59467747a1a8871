"""Tests of interpflow."""
