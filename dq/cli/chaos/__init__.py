"""`dq chaos`: a workflow runs again and again while processes are killed and stopped, and everything is judged at the end."""
