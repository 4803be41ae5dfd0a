//! Nix's database schema, version 10: the same in 2.8 and in 2.34.

/// The content of the file `schema` beside the database.
pub(super) const VERSION: &str = "10";

/// Statements that make the tables, indices and the trigger of `main`.
pub(super) const CREATE: &str = "
create table main.ValidPaths (
    id               integer primary key autoincrement not null,
    path             text unique not null,
    hash             text not null,
    registrationTime integer not null,
    deriver          text,
    narSize          integer,
    ultimate         integer,
    sigs             text,
    ca               text
);
create table main.Refs (
    referrer  integer not null,
    reference integer not null,
    primary key (referrer, reference),
    foreign key (referrer) references ValidPaths(id) on delete cascade,
    foreign key (reference) references ValidPaths(id) on delete restrict
);
create table main.DerivationOutputs (
    drv  integer not null,
    id   text not null,
    path text not null,
    primary key (drv, id),
    foreign key (drv) references ValidPaths(id) on delete cascade
);";

/// After the rows are in: an index is made faster at once than row by row.
pub(super) const INDEX: &str = "
create index main.IndexReferrer on Refs(referrer);
create index main.IndexReference on Refs(reference);
create index main.IndexDerivationOutputs on DerivationOutputs(path);
create trigger main.DeleteSelfRefs before delete on ValidPaths
  begin
    delete from Refs where referrer = old.id and reference = old.id;
  end;";
