"""What a job leaves for others: a document for machines, a page of it for people, metrics for Prometheus."""
