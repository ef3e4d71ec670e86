"""Exact solutions of small token MDPs, with and without help: what everything else is tested against."""
