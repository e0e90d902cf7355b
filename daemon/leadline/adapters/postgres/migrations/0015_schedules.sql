-- Schedules, and what became of each time at which one was due.

-- What is submitted, and when. `decided` (microseconds of Unix time) is the last time that was decided or, before the
-- first, the moment from which the schedule is in force: what is not later is never looked at again.
CREATE TABLE schedule (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    teamspace text NOT NULL,
    name text NOT NULL,
    timetable text NOT NULL,
    submission text NOT NULL,
    missed text NOT NULL CHECK (missed IN ('skip', 'once', 'all')),
    overlap boolean NOT NULL,
    paused boolean NOT NULL DEFAULT false,
    decided bigint NOT NULL,
    uid bigint NOT NULL,
    created timestamptz NOT NULL DEFAULT now(),
    UNIQUE (teamspace, name)
);
COMMENT ON COLUMN schedule.uid IS 'who made it: its jobs are theirs';

-- One row per schedule and time: the row of a time that ran is written with its job, so there is one job or none.
CREATE TABLE occurrence (
    schedule bigint NOT NULL,
    at bigint NOT NULL,
    verdict text NOT NULL CHECK (verdict IN ('run', 'missed', 'still_running', 'refused')),
    job bigint,
    message text,
    PRIMARY KEY (schedule, at)
);
