"""A pytest fixture for services that submit work to Leadline."""
