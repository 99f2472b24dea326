"""Webhooks: events of the outbox become deliveries, and deliveries are sent."""
