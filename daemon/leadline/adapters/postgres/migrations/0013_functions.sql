-- What the later functions of the language call; as in 0003, none raises, and each gives NULL where it cannot be done.

-- bounded_power: a number multiplied by itself, where it is one that a cell could hold.
CREATE FUNCTION bounded_power(base numeric, exponent integer) RETURNS numeric
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN abs(base) < 1e40 THEN power(round(base, 40), exponent) END;

-- months_after: a date moved by whole months, inside the years 1 to 9999; of a month that is shorter, its last day.
CREATE FUNCTION months_after(start date, months numeric) RETURNS date
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN start BETWEEN date '0001-01-01' AND date '9999-12-31' AND months BETWEEN -120000 AND 120000
    THEN CASE WHEN extract(year FROM start) * 12 + extract(month FROM start) - 1 + trunc(months) BETWEEN 12 AND 119999
        THEN (start + make_interval(months => trunc(months)::integer))::date END
END;

-- months_after: the same for a moment, in UTC.
CREATE FUNCTION months_after(start timestamptz, months numeric) RETURNS timestamptz
LANGUAGE sql STABLE PARALLEL SAFE
RETURN CASE WHEN months_after((start AT TIME ZONE 'UTC')::date, months) IS NOT NULL
    THEN (start AT TIME ZONE 'UTC' + make_interval(months => trunc(months)::integer)) AT TIME ZONE 'UTC'
END;

-- seconds_after: a moment moved by whole seconds, inside the years 1 to 9999.
CREATE FUNCTION seconds_after(start timestamptz, seconds numeric) RETURNS timestamptz
LANGUAGE sql STABLE PARALLEL SAFE
RETURN CASE WHEN seconds BETWEEN -315537897600 AND 315537897600
    THEN CASE WHEN floor(extract(epoch FROM start)) + trunc(seconds) BETWEEN -62135596800 AND 253402300799
        THEN start + make_interval(secs => trunc(seconds)::double precision) END
END;

-- months_between: how many whole times so many months fit between two moments of a calendar.
CREATE FUNCTION months_between(start timestamp, ending timestamp, months integer) RETURNS numeric
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN trunc((extract(year FROM age(ending, start)) * 12 + extract(month FROM age(ending, start))) / months);

-- date_in: the date that a text writes as three numbers with something between; the places of year, month and day.
CREATE FUNCTION date_in(cell text, between_them text, year integer, month integer, day integer) RETURNS date
LANGUAGE sql STABLE PARALLEL SAFE
RETURN CASE WHEN octet_length(btrim(cell)) BETWEEN 8 AND 10
    AND length(btrim(cell)) - length(replace(btrim(cell), between_them, '')) = 2
    AND octet_length(split_part(btrim(cell), between_them, year)) = 4
    AND octet_length(split_part(btrim(cell), between_them, month)) IN (1, 2)
    AND octet_length(split_part(btrim(cell), between_them, day)) IN (1, 2)
    AND ltrim(replace(btrim(cell), between_them, ''), '0123456789') = ''
    THEN as_date(
        split_part(btrim(cell), between_them, year)
        || '-' || lpad(split_part(btrim(cell), between_them, month), 2, '0')
        || '-' || lpad(split_part(btrim(cell), between_them, day), 2, '0')
    )
END;

-- email_domain: what stands behind the one @ of an address.
CREATE FUNCTION email_domain(address text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN length(address) - length(replace(address, '@', '')) = 1 AND split_part(btrim(address), '@', 1) <> ''
    THEN NULLIF(lower(split_part(btrim(address), '@', 2)), '')
END;

-- domain_of: the host of a web address, be it a whole one or the beginning of one, without user, port and www.
CREATE FUNCTION domain_of(address text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN NULLIF(substr(replace('//' || lower(split_part(split_part(split_part(split_part(split_part(
    coalesce(NULLIF(split_part(btrim(address), '://', 2), ''), btrim(address)),
    '/', 1), '?', 1), '#', 1), '@', -1), ':', 1)), '//www.', '//'), 3), '');

-- json_length: how many values a list has.
CREATE FUNCTION json_length(value jsonb) RETURNS numeric
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN jsonb_typeof(value) = 'array' THEN jsonb_array_length(value)::numeric END;
