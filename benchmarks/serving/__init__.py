"""The scorer against its peers on CPU: throughput, latency of requests, faithfulness, and the machine's floor."""
