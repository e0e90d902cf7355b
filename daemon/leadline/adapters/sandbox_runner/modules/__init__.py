"""What tenants' code finds beside the standard library: modules for whatever interpreter it runs on."""
