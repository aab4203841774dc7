"""What people look at: tables, plots, videos and the page of an evaluation."""
