"""The tasks of models: one module a task, behind one interface (`base.py`)."""
