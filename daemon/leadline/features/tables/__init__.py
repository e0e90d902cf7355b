"""Tables: uploads, formulas, enrichments, chains and exports over the leads of a teamspace.

The pure half of the slice, in the order in which a lead meets it:

    lead_files               a file of any kind → its columns and rows, by
      reading                  CSV,
      json_lines               JSON Lines, and
      spreadsheets             XLSX
      repair                   what a person has repaired of what was refused
    ingest                   rows → leads, or rows refused with their reasons
    columns                  what a column is called and what its cells may hold
    expressions              a filter or formula → SQL that cannot fail a statement and can reach nothing else
    templates, prompts       {{placeholders}} → what is sent for one lead; a model's answer → a value
    provider_modules         a provider as data: what it wants, costs and allows, and how it says no
    requests                 a module and the values of one lead → one complete HTTP request
    responses                one HTTP answer → one verdict
"""
