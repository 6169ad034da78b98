"""The tables of a store, and the migrations from earlier versions.

runs      one row per run: id, created, config (JSON, frozen), config_hash, status, reason, device ("cpu" or
          "cuda"), pid, started, ended (seconds since 1970); position (in the queue), owner, slot (the device it
          has: "cpu", "cuda:0", ...), turn (number of its start, rising), attempt, parent, relation, source (the
          parent's checkpoint that it starts from), data_folder, dataset (JSON: data_label, data_notes and
          data_fingerprint if the images had changed when the run started, else ""); name, notes, tags (JSON list):
          given by people; mask_name: of its mask in the library when it was enqueued
events    append-only: id (rises over all runs), run, kind, epoch, step, time, payload (JSON)
served    each owner's last start on a device and the one before, by number: device, owner, turn, before; kept when
          runs are deleted
gone      runs that were deleted or archived: id, time, how, owner
visitors  one row per browser: id, nickname, draft (JSON), seen
plans     the library of masks: id, name, owner, created, plan (JSON)
studies   one row per study: id, created, owner, halted (1: stopped, its missing runs are not to be started)
study_versions  append-only: study, version (from 1), created, spec (JSON of `core.study.Study`); the last one counts
study_runs      the run of each arm and seed of a study: study, arm, seed, run
lesson_predictions  what was guessed in a lesson, without names: lesson, task, guess (JSON), time
"""

from __future__ import annotations

from mlae_lab.core.events import OLD_FIELDS, OLD_KINDS
from mlae_lab.core.image_labels import OLD_WORD, WORD

# Rises with every change of the tables and of the settings of RunConfig, so that an older version refuses the store.
SCHEMA = 10

_TABLES = (
    """CREATE TABLE runs (
        number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, created REAL NOT NULL,
        config TEXT NOT NULL, config_hash TEXT NOT NULL, status TEXT NOT NULL, reason TEXT NOT NULL DEFAULT '',
        device TEXT NOT NULL, pid INTEGER, started REAL, ended REAL)""",
    """CREATE TABLE events (
        id INTEGER PRIMARY KEY AUTOINCREMENT, run TEXT NOT NULL, kind TEXT NOT NULL, epoch INTEGER, step INTEGER,
        time REAL NOT NULL, payload TEXT NOT NULL)""",
    "CREATE INDEX events_of_run ON events (run, id)",
    "CREATE INDEX events_of_kind ON events (run, kind, id)",
)
# Statements that migrate a store from one schema to the next; index 0 creates the first.
CHANGES: tuple[tuple[str, ...], ...] = (
    _TABLES,
    (
        "ALTER TABLE runs ADD COLUMN place REAL NOT NULL DEFAULT 0",
        "ALTER TABLE runs ADD COLUMN owner TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE runs ADD COLUMN slot TEXT",
        "ALTER TABLE runs ADD COLUMN turn INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE runs ADD COLUMN attempt INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE runs ADD COLUMN parent TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE runs ADD COLUMN relation TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE runs ADD COLUMN source TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE runs ADD COLUMN data_folder TEXT NOT NULL DEFAULT ''",
        "UPDATE runs SET place = number, slot = device",
        "CREATE TABLE gone (id TEXT PRIMARY KEY, time REAL NOT NULL, how TEXT NOT NULL)",
        """CREATE TABLE visitors (
            id TEXT PRIMARY KEY, nickname TEXT NOT NULL DEFAULT '', draft TEXT NOT NULL DEFAULT '',
            seen REAL NOT NULL)""",
    ),
    (
        """CREATE TABLE plans (
            id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE COLLATE NOCASE, owner TEXT NOT NULL DEFAULT '',
            created REAL NOT NULL, plan TEXT NOT NULL)""",
    ),
    (),  # RunConfig has mask_per and input_dropout
    (
        """CREATE TABLE served (
            device TEXT NOT NULL, owner TEXT NOT NULL, turn INTEGER NOT NULL, before INTEGER NOT NULL,
            PRIMARY KEY (device, owner))""",
        "INSERT INTO served SELECT device, owner, MAX(turn), 0 FROM runs WHERE turn > 0 GROUP BY device, owner",
        "ALTER TABLE gone ADD COLUMN owner TEXT NOT NULL DEFAULT ''",
    ),
    (
        "ALTER TABLE runs RENAME COLUMN place TO position",
        "ALTER TABLE runs ADD COLUMN dataset TEXT NOT NULL DEFAULT ''",
        "UPDATE runs SET relation = 'branched' WHERE relation = 'continued'",
        *(f"UPDATE events SET kind = '{new}' WHERE kind = '{old}'" for old, new in OLD_KINDS.items()),
        # Quotes within a string of JSON are escaped, so a quoted name followed by a colon is a field name.
        *(
            f"""UPDATE events SET payload = REPLACE(payload, '"{old}":', '"{new}":') WHERE kind = '{kind}'"""
            for kind, names in OLD_FIELDS.items()
            for old, new in names.items()
        ),
        # The hash stays: it names the run. Another text in the place of the config is left as it is.
        f"""UPDATE runs SET config = JSON_SET(config, '$.data_label',
                REPLACE(JSON_EXTRACT(config, '$.data_label'), '{OLD_WORD}', '{WORD}'))
            WHERE CASE WHEN JSON_VALID(config) THEN JSON_EXTRACT(config, '$.data_label') LIKE '%{OLD_WORD}%' END""",
    ),
    (  # RunConfig has method_settings, optimizer, drop_path and consistency
        """CREATE TABLE studies (
            id TEXT PRIMARY KEY, created REAL NOT NULL, owner TEXT NOT NULL DEFAULT '',
            halted INTEGER NOT NULL DEFAULT 0)""",
        """CREATE TABLE study_versions (
            study TEXT NOT NULL, version INTEGER NOT NULL, created REAL NOT NULL, spec TEXT NOT NULL,
            PRIMARY KEY (study, version))""",
        """CREATE TABLE study_runs (
            study TEXT NOT NULL, arm TEXT NOT NULL, seed INTEGER NOT NULL, run TEXT NOT NULL,
            PRIMARY KEY (study, arm, seed))""",
        "CREATE INDEX studies_of_run ON study_runs (run)",
    ),
    (  # RunConfig has learned_drop_rates and drop_rate_entropy
        "ALTER TABLE runs ADD COLUMN name TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE runs ADD COLUMN notes TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE runs ADD COLUMN tags TEXT NOT NULL DEFAULT '[]'",
        "ALTER TABLE runs ADD COLUMN mask_name TEXT NOT NULL DEFAULT ''",
        """UPDATE runs SET mask_name = COALESCE((
                SELECT name FROM plans WHERE CASE WHEN JSON_VALID(plan) THEN JSON(plan) END
                    = JSON_EXTRACT(runs.config, '$.plan')), '')
            WHERE CASE WHEN JSON_VALID(config) THEN JSON_EXTRACT(config, '$.method') = 'mlae' END""",
    ),
    (  # and `preset_migration` makes studies of the runs with `OLD_RELATIONS`
        """CREATE TABLE lesson_predictions (
            lesson TEXT NOT NULL, task TEXT NOT NULL, browser TEXT NOT NULL, guess TEXT NOT NULL, time REAL NOT NULL,
            PRIMARY KEY (lesson, task, browser))""",
    ),
    (),  # RunConfig has image_size, and augmentation and other options of training up to keep_best
)
# How runs of a pair, a race, repeats or a diversity experiment were related to their parent before they were studies.
OLD_RELATIONS = ("paired", "race", "repeat", "diversity")
# Names that version 5 gave to files in a run's folder.
OLD_FILES = {"pulse": "heartbeat", "end.json": "exit_record.json", "untold.json": "pending_events.json"}
