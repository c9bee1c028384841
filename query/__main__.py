"""`python -m query`: starts a worker (query/worker.py), after what has to happen before the engine is imported."""

from query.processes import die_with_parent, leave_out_pandas

if __name__ == "__main__":
    die_with_parent()
    leave_out_pandas()
    from query.worker import main

    main()
