"""The engine on Apache Spark (extra `spark`): executors read, shuffle and join with the kernels that the engine on DuckDB uses."""
