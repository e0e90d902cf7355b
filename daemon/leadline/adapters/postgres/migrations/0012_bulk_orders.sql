-- Work that a provider is to do, or does, for many leads at a time. The row is there before the order is sent, so that after
-- a crash it is known which leads a lost order was for; the task is filled in by the provider's answer. It is deleted with
-- the last of the results. How many of an account are open is counted over all jobs.
CREATE TABLE bulk_order (
    job bigint NOT NULL,
    number integer NOT NULL,
    account text NOT NULL,
    leads bigint[] NOT NULL,
    provider_task text,
    ordered bigint NOT NULL,
    PRIMARY KEY (job, number)
);
CREATE INDEX bulk_order_by_account ON bulk_order (account, ordered);
