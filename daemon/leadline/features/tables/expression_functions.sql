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

-- as_date: the date that YYYY-MM-DD writes. Days 1 to 28 exist in every month; only the others need a calendar.
CREATE FUNCTION as_date(cell text) RETURNS date
LANGUAGE sql STABLE PARALLEL SAFE
RETURN CASE
    WHEN translate(cell, '123456789', '000000000') <> '0000-00-00' THEN NULL
    WHEN left(cell, 4) = '0000' OR substr(cell, 6, 2) = '00' OR substr(cell, 6, 2) COLLATE "C" > '12'
        OR right(cell, 2) = '00' THEN NULL
    WHEN right(cell, 2) COLLATE "C" <= '28' THEN cell::date
    WHEN right(cell, 5) = '02-29'
        THEN CASE WHEN left(cell, 4)::int % 4 = 0 AND (left(cell, 4)::int % 100 <> 0 OR left(cell, 4)::int % 400 = 0)
            THEN cell::date END
    WHEN substr(cell, 6, 2) = '02' THEN NULL
    WHEN right(cell, 2) COLLATE "C" <= '30' THEN cell::date
    WHEN right(cell, 2) = '31' AND substr(cell, 6, 2) NOT IN ('04', '06', '09', '11') THEN cell::date
END;

-- as_timestamp: the moment that a text writes; a date is its midnight, and what names no zone is in UTC.
CREATE FUNCTION as_timestamp(cell text) RETURNS timestamptz
LANGUAGE sql STABLE PARALLEL SAFE
RETURN CASE
    WHEN as_date(left(cell, 10)) IS NULL THEN NULL
    WHEN octet_length(cell) = 10 THEN (cell || ' 00:00:00Z')::timestamptz
    WHEN substr(cell, 11) ~ '^[T ](?:[01][0-9]|2[0-3]):[0-5][0-9](?::[0-5][0-9](?:[.][0-9]+)?)?$'
        AND octet_length(cell) <= 26 THEN (cell || 'Z')::timestamptz
    WHEN substr(cell, 11) ~ '^[T ](?:[01][0-9]|2[0-3]):[0-5][0-9](?::[0-5][0-9](?:[.][0-9]+)?)?(?:Z|[-+](?:0[0-9]|1[0-4])(?::?[0-5][0-9])?)$'
        AND octet_length(cell) <= 32 THEN cell::timestamptz
END;

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
