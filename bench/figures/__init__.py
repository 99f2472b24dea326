"""The figures, one family a file: ``take(context)`` gives its lines of the report."""
