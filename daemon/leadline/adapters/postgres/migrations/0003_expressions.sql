-- What compiled expressions call. Each function reads a cell or does a step of arithmetic, gives NULL where that cannot be
-- done, and never raises: one bad cell must not end a statement over a million leads. That is why each cast stands in a
-- CASE behind a test of the text's shape (AND gives no order of evaluation, CASE does), and why the tests are translate()
-- and comparisons first and a regular expression, ten times dearer, only for what is not in the usual form.
--
-- All are single expressions, so that Postgres inlines them; as_date and as_timestamp are STABLE because the casts inside
-- are, by their catalogue entry. None needs pg_input_is_valid, which Postgres 14 and 15 do not have.

-- as_number: the number that a text writes, at most 40 digits on each side of the point and an exponent of two digits.
CREATE FUNCTION as_number(cell text) RETURNS numeric
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN cell = '' THEN NULL
    WHEN ltrim(cell, '0123456789') = '' AND octet_length(cell) <= 40 THEN cell::numeric
    WHEN octet_length(cell) <= 90
        AND cell ~ '^ *[-+]?(?:[0-9]+[.]?[0-9]*|[.][0-9]+)(?:[eE][-+]?[0-9][0-9]?)? *$' THEN cell::numeric
END;

-- as_number: the number in a cell, also where it is written as text.
CREATE FUNCTION as_number(cell jsonb) RETURNS numeric
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE jsonb_typeof(cell)
    WHEN 'number' THEN cell::numeric
    WHEN 'string' THEN as_number(cell #>> '{}')
END;

-- as_boolean: what a text says, in the four words that a cell may use.
CREATE FUNCTION as_boolean(cell text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE lower(btrim(cell))
    WHEN 'true' THEN true WHEN 'yes' THEN true WHEN 'false' THEN false WHEN 'no' THEN false
END;

-- as_boolean: what a cell says, also where it is written as text.
CREATE FUNCTION as_boolean(cell jsonb) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE jsonb_typeof(cell)
    WHEN 'boolean' THEN cell::boolean
    WHEN 'string' THEN as_boolean(cell #>> '{}')
END;

-- as_date: the date in a cell. The JSON path method is the one reader of dates in Postgres 14 that can be told to be
-- silent. It would take a month or day 00 for a 01 and the year 0000 for 1 BC; and ten characters hold no year that a
-- million days more would carry out of Postgres' calendar.
CREATE FUNCTION as_date(cell jsonb) RETURNS date
LANGUAGE sql STABLE PARALLEL SAFE
RETURN CASE WHEN octet_length(cell #>> '{}') <= 10 AND cell #>> '{}' NOT LIKE '%-00%' AND cell #>> '{}' NOT LIKE '0000%'
    THEN (jsonb_path_query_first(cell, '$.datetime("YYYY-MM-DD")', '{}', true) #>> '{}')::date
END;

-- as_date: the date that a text writes.
CREATE FUNCTION as_date(cell text) RETURNS date
LANGUAGE sql STABLE PARALLEL SAFE
RETURN as_date(to_jsonb(cell));

-- as_timestamp: the moment that a text writes; a date is its midnight, and what names no zone is in UTC. The first case is
-- the form in which a cell holds it; the regular expression admits the other forms of ISO 8601 to the usual cast.
CREATE FUNCTION as_timestamp(cell text) RETURNS timestamptz
LANGUAGE sql STABLE PARALLEL SAFE
RETURN CASE
    WHEN cell LIKE '____-__-__T__:__:__Z' AND cell NOT LIKE '%-00%' AND cell NOT LIKE '0000%' THEN
        (jsonb_path_query_first(to_jsonb(left(cell, 19)), '$.datetime("YYYY-MM-DD\"T\"HH24:MI:SS")', '{}', true) #>> '{}')
            ::timestamp AT TIME ZONE 'UTC'
    WHEN octet_length(cell) = 10 THEN as_date(cell)::timestamp AT TIME ZONE 'UTC'
    WHEN octet_length(cell) <= 32 AND cell ~ '^[0-9]{4}-[0-9]{2}-[0-9]{2}[T ](?:[01][0-9]|2[0-3]):[0-5][0-9]'
        AND as_date(left(cell, 10)) IS NOT NULL THEN CASE
            WHEN substr(cell, 17) ~ '^(?::[0-5][0-9](?:[.][0-9]+)?)?$' THEN (cell || 'Z')::timestamptz
            WHEN substr(cell, 17) ~ '^(?::[0-5][0-9](?:[.][0-9]+)?)?(?:Z|[-+](?:0[0-9]|1[0-4]):?[0-5][0-9])$'
                THEN cell::timestamptz
        END
END;

-- as_timestamp: the moment in a cell.
CREATE FUNCTION as_timestamp(cell jsonb) RETURNS timestamptz
LANGUAGE sql STABLE PARALLEL SAFE
RETURN as_timestamp(cell #>> '{}');

-- as_text: the one string that stands for a moment, as columns.write_timestamp writes it.
CREATE FUNCTION as_text(moment timestamptz) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
RETURN replace(to_char(moment AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), '.000000Z', 'Z');

-- days_after: a date moved by whole days, inside the years 1 to 9999.
CREATE FUNCTION days_after(start date, days numeric) RETURNS date
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN days BETWEEN -3652058 AND 3652058
    THEN CASE WHEN (start - date '0001-01-01') + trunc(days) BETWEEN 0 AND 3652058 THEN start + trunc(days)::int END
END;

-- bounded_replace: replace() where its result cannot exceed 1 MiB, whatever the texts are.
CREATE FUNCTION bounded_replace(cell text, old text, new text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN octet_length(cell)::bigint * (octet_length(new) + 1) <= 1048576 THEN replace(cell, old, new) END;
