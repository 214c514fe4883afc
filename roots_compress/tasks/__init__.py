"""What models are for: a module a task, behind one interface (`base.py`)."""
