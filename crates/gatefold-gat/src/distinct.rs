//! The distinct rows of a batch: what is computed once for all states that agree on it.
//!
//! What layer l makes of a node depends on the activations within l steps of it alone. Few nodes are
//! active in a state of a knowledge graph, so that most nodes' rows are those of the graph at rest, and
//! many of the others are the same in several states.

// B batch, V input rows of the encoder, T readout rows, G features of a node

use std::sync::{Mutex, PoisonError};

use gatefold_ops::{GatEdges, map_tasks};

use crate::topology::{LayerTopology, Topology};

/// States that are looked at before it is decided whether distinct rows pay.
const LOOKED_AT: usize = 16;

/// States whose rows make one graph, at least and at most: fewer repeat less, more leave the cache.
const STATES: [usize; 2] = [128, 256];

/// Floating-point operations that take as long as finding a row, roughly.
const COST: usize = 100;

/// The distinct rows of a batch, as one graph for some [`STATES`] each.
#[derive(Debug)]
pub(crate) struct DistinctRows {
    /// Input row of the encoder of each distinct input, all graphs one after the other.
    pub(crate) rows: Vec<u32>,
    /// Its activation and features, `[R, 1 + G]`.
    pub(crate) inputs: Vec<f32>,
    /// For each layer the edges of every graph.
    pub(crate) layers: Vec<Vec<GatEdges>>,
    /// Distinct row of the last layer of each state and readout row, `[B * T]`.
    pub(crate) readout: Vec<u32>,
}

/// Node inputs of a batch on the host: activations `[B, V]` and features `[B, V, G]`, `V` all graph nodes.
pub(crate) struct NodeInputs<'a> {
    pub(crate) nodes: usize,
    pub(crate) activations: &'a [f32],
    pub(crate) features: &'a [f32],
}

impl DistinctRows {
    /// The distinct rows of a batch; `None` where they are more than two thirds of all rows in its first
    /// states, so that looking for them would cost more than it saves.
    pub(crate) fn of(topology: &Topology, batch: &NodeInputs<'_>) -> Option<Self> {
        let states = batch.activations.len() / batch.nodes;
        let all: usize = topology.input_nodes.len()
            + topology.layers.iter().map(|layer| layer.edges.num_targets()).sum::<usize>();
        // The first states decide; their search goes on where it pays.
        let looked_at = LOOKED_AT.min(states);
        let mut search = Search::new(topology, batch);
        (0..looked_at).for_each(|state| search.add(state));
        if 3 * search.num_rows() > 2 * looked_at * all {
            return None;
        }
        let mut begun = Some(search);
        // Two graphs, so that a second thread has work, unless that would be too few or too many states.
        let of_graph = (states / 2).clamp(STATES[0], STATES[1]);
        let graphs = (0..states).step_by(of_graph).map(|first| first..states.min(first + of_graph));
        let tasks = graphs.map(|states| match begun.take() {
            Some(search) => (Some(search), looked_at..states.end),
            None => (None, states),
        });
        let graphs = map_tasks(tasks.collect(), COST * states * all, |(begun, states)| {
            let mut search = begun.unwrap_or_else(|| Search::new(topology, batch));
            states.for_each(|state| search.add(state));
            search.finish()
        });
        let numbers = |of: fn(&Graph) -> usize| graphs.iter().map(of).sum();
        let mut rows = Self {
            rows: Vec::with_capacity(numbers(|graph| graph.rows.len())),
            inputs: Vec::with_capacity(numbers(|graph| graph.inputs.len())),
            layers: vec![Vec::with_capacity(graphs.len()); topology.layers.len()],
            readout: Vec::with_capacity(states * topology.readout_nodes.len()),
        };
        for graph in graphs {
            let last_rows = rows.layers.last().expect("an encoder has layers");
            let before: u32 = last_rows.iter().map(|edges| edges.num_targets() as u32).sum();
            rows.rows.extend(graph.rows);
            rows.inputs.extend(graph.inputs);
            rows.layers.iter_mut().zip(graph.layers).for_each(|(edges, of_graph)| edges.push(of_graph));
            rows.readout.extend(graph.readout.iter().map(|row| before + row));
        }
        Some(rows)
    }
}

/// The distinct rows of one graph's states, numbered from 0.
struct Graph {
    rows: Vec<u32>,
    inputs: Vec<f32>,
    /// Of each layer.
    layers: Vec<GatEdges>,
    readout: Vec<u32>,
}

/// The rows of one layer, or of the encoder's input, in the graph under way.
#[derive(Debug, Default)]
struct Level {
    /// Distinct row that each row is in the present state.
    now: Vec<u32>,
    /// Rows that are not at rest in the present state.
    moved: Vec<u32>,
    /// Which state each row was last reached in.
    reached: Vec<u32>,
    /// Sum over the row's moved sources, see [`Spread`].
    hash: Vec<u64>,
    found: Table,
    /// Row of the layer of each distinct row; the first are those at rest.
    row: Vec<u32>,
    /// For layers: the distinct row of the level below that each is on its way in, and those of its sources.
    own: Vec<u32>,
    sources: Vec<u32>,
    /// Where the sources of each distinct row begin.
    offsets: Vec<u32>,
}

impl Level {
    /// So many rows at rest; with their edges, if they are a layer's.
    fn begin(&mut self, rows: usize, edges: Option<&GatEdges>) {
        let Self { now, moved, reached, hash, found, row, own, sources, offsets } = self;
        refill(now, 0..rows as u32);
        refill(row, 0..rows as u32);
        moved.clear();
        refill(reached, std::iter::repeat_n(0, rows));
        refill(hash, std::iter::repeat_n(0, rows));
        found.clear();
        let of = |part: fn(&GatEdges) -> &[u32]| edges.map_or_else(Default::default, part).iter().copied();
        refill(own, of(GatEdges::targets));
        refill(sources, of(GatEdges::sources));
        refill(offsets, of(GatEdges::offsets));
    }

    /// Back to rest.
    fn rest(&mut self) {
        for row in self.moved.drain(..) {
            self.now[row as usize] = row;
        }
    }
}

/// New elements where others were.
fn refill<T>(buffer: &mut Vec<T>, elements: impl Iterator<Item = T>) {
    buffer.clear();
    buffer.extend(elements);
}

/// Calls `found` with every node whose activation or some feature is not 0.
fn for_each_moved(activations: &[f32], features: &[f32], mut found: impl FnMut(usize)) {
    let any = |xs: &[f32]| xs.iter().fold(0, |bits, x| bits | x.to_bits()) != 0;
    if features.is_empty() {
        const SOME: usize = 16;
        for (i, some) in activations.chunks(SOME).enumerate().filter(|(_, some)| any(some)) {
            let moved = some.iter().enumerate().filter(|(_, x)| x.to_bits() != 0);
            moved.for_each(|(at, _)| found(i * SOME + at));
        }
        return;
    }
    let width = features.len() / activations.len();
    for (node, features) in features.chunks_exact(width).enumerate() {
        if activations[node].to_bits() != 0 || any(features) {
            found(node);
        }
    }
}

/// Where a layer's sources lead: for each the targets that it reaches, with a factor of the edge's own.
///
/// A target's hash is the sum over its moved sources of factor times distinct row, so that sources at
/// rest cost nothing.
#[derive(Debug)]
pub(crate) struct Spread {
    offsets: Vec<u32>,
    targets: Vec<(u32, u64)>,
}

impl Spread {
    pub(crate) fn new(edges: &GatEdges) -> Self {
        let mut reached = vec![Vec::new(); edges.num_sources()];
        for (target, &own) in edges.targets().iter().enumerate() {
            let range = edges.offsets()[target] as usize..edges.offsets()[target + 1] as usize;
            // A target's own row is added to what it receives, so it is read without an edge too.
            for (number, &source) in edges.sources()[range].iter().chain([&own]).enumerate() {
                let factor = mix(((target as u64) << 32) | (number as u64 + 1)) | 1;
                reached[source as usize].push((target as u32, factor));
            }
        }
        let mut offsets = vec![0];
        offsets.extend(reached.iter().scan(0, |sum, targets| {
            *sum += targets.len() as u32;
            Some(*sum)
        }));
        Self { offsets, targets: reached.concat() }
    }

    fn of(&self, source: u32) -> &[(u32, u64)] {
        &self.targets[self.offsets[source as usize] as usize..self.offsets[source as usize + 1] as usize]
    }
}

/// A hash of well-spread bits.
fn mix(x: u64) -> u64 {
    let x = (x ^ x >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (x ^ x >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9)
}

/// Distinct rows by hash, for whoever can tell whether two of one hash are the same.
#[derive(Debug, Default)]
struct Table {
    /// A power of two of them, at most half in use.
    slots: Vec<Slot>,
    /// Which slots are in use; never 0.
    filling: u32,
    len: usize,
}

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    hash: u64,
    row: u32,
    /// The filling of the table that it was last used in; 0 if none.
    filling: u32,
}

impl Table {
    fn clear(&mut self) {
        self.len = 0;
        self.filling = self.filling.wrapping_add(1);
        if self.filling == 0 {
            self.slots.fill(Slot::default());
            self.filling = 1;
        }
    }

    fn start(&self, hash: u64) -> usize {
        (hash >> 32) as usize & (self.slots.len() - 1)
    }

    fn find(&self, hash: u64, same: impl Fn(u32) -> bool) -> Option<u32> {
        if self.slots.is_empty() {
            return None;
        }
        let mut at = self.start(hash);
        loop {
            let held = self.slots[at];
            if held.filling != self.filling {
                return None;
            }
            if held.hash == hash && same(held.row) {
                return Some(held.row);
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
    }

    /// Adds a row that is not there.
    fn insert(&mut self, hash: u64, row: u32) {
        if 2 * (self.len + 1) > self.slots.len() {
            let more = vec![Slot::default(); (2 * self.slots.len()).max(1024)];
            let held = std::mem::replace(&mut self.slots, more);
            let filling = self.filling;
            for slot in held.into_iter().filter(|slot| slot.filling == filling) {
                self.put(slot.hash, slot.row);
            }
        }
        self.put(hash, row);
        self.len += 1;
    }

    fn put(&mut self, hash: u64, row: u32) {
        let mut at = self.start(hash);
        while self.slots[at].filling == self.filling {
            at = (at + 1) & (self.slots.len() - 1);
        }
        self.slots[at] = Slot { hash, row, filling: self.filling };
    }
}

/// What searches found in, for the next ones: how much a search finds depends on data, and memory that has to grow
/// is asked for again and again.
#[derive(Debug, Default)]
pub(crate) struct Searches(Mutex<Vec<Found>>);

impl Searches {
    fn take(&self) -> Found {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    fn give_back(&self, found: Found) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(found);
    }
}

/// What a search has found.
#[derive(Debug, Default)]
struct Found {
    /// The input and each layer.
    levels: Vec<Level>,
    /// Activation and features of each distinct input.
    inputs: Vec<f32>,
    /// Distinct rows that the states so far read out.
    readout: Vec<u32>,
}

/// What finds the distinct rows of a graph.
struct Search<'a> {
    topology: &'a Topology,
    batch: &'a NodeInputs<'a>,
    features: usize,
    found: Found,
    /// States so far.
    state: u32,
}

impl Drop for Search<'_> {
    fn drop(&mut self) {
        self.topology.searches.give_back(std::mem::take(&mut self.found));
    }
}

impl<'a> Search<'a> {
    fn new(topology: &'a Topology, batch: &'a NodeInputs<'a>) -> Self {
        let (inputs, features) =
            (topology.input_nodes.len(), batch.features.len() / batch.activations.len().max(1));
        let mut found = topology.searches.take();
        found.levels.resize_with(1 + topology.layers.len(), Level::default);
        found.levels[0].begin(inputs, None);
        for (level, layer) in found.levels[1..].iter_mut().zip(&topology.layers) {
            level.begin(layer.edges.num_targets(), Some(&layer.edges));
        }
        refill(&mut found.inputs, std::iter::repeat_n(0.0, inputs * (1 + features)));
        found.readout.clear();
        Self { topology, batch, features, found, state: 0 }
    }

    fn num_rows(&self) -> usize {
        self.found.levels.iter().map(|level| level.row.len()).sum()
    }

    /// Adds the rows of a state, and the distinct rows that it reads out.
    fn add(&mut self, state: usize) {
        self.state += 1;
        self.add_inputs(state);
        for layer in 0..self.topology.layers.len() {
            self.add_layer(layer);
        }
        let Found { levels, readout, .. } = &mut self.found;
        readout.extend_from_slice(&levels.last().expect("the input at least").now);
        levels.iter_mut().for_each(Level::rest);
    }

    fn add_inputs(&mut self, state: usize) {
        let (nodes, width) = (self.batch.nodes, self.features);
        let activations = &self.batch.activations[state * nodes..(state + 1) * nodes];
        let features = &self.batch.features[state * nodes * width..(state + 1) * nodes * width];
        let Found { levels, inputs, .. } = &mut self.found;
        let level = &mut levels[0];
        for_each_moved(activations, features, |node| {
            let Some(row) = self.topology.input_row(node) else { return };
            let numbers = || activations[node..=node].iter().chain(&features[node * width..][..width]);
            let bits = numbers().map(|x| x.to_bits()).chain([row]);
            let hash = bits.fold(0, |hash: u64, bits| mix(hash.rotate_left(5) ^ u64::from(bits)));
            let known = level.found.find(hash, |id| {
                let at = id as usize;
                let held = &inputs[at * (1 + width)..][..1 + width];
                level.row[at] == row && held.iter().zip(numbers()).all(|(a, b)| a.to_bits() == b.to_bits())
            });
            let id = known.unwrap_or_else(|| {
                let id = level.row.len() as u32;
                level.row.push(row);
                inputs.extend(numbers());
                level.found.insert(hash, id);
                id
            });
            level.now[row as usize] = id;
            level.moved.push(row);
        });
    }

    fn add_layer(&mut self, layer: usize) {
        let (below, above) = self.found.levels.split_at_mut(layer + 1);
        let (below, level) = (&below[layer], &mut above[0]);
        let LayerTopology { edges, spread, .. } = &self.topology.layers[layer];
        for &source in &below.moved {
            let id = below.now[source as usize];
            for &(target, factor) in spread.of(source) {
                let at = target as usize;
                if level.reached[at] != self.state {
                    level.reached[at] = self.state;
                    level.hash[at] = u64::from(target);
                    level.moved.push(target);
                }
                level.hash[at] = level.hash[at].wrapping_add(factor.wrapping_mul(u64::from(id)));
            }
        }
        for &target in &level.moved {
            let own = below.now[edges.targets()[target as usize] as usize];
            let in_edges =
                edges.offsets()[target as usize] as usize..edges.offsets()[target as usize + 1] as usize;
            let sources = &edges.sources()[in_edges];
            let hash = mix(level.hash[target as usize]);
            let known = level.found.find(hash, |id| {
                let at = id as usize;
                let held = &level.sources[level.offsets[at] as usize..level.offsets[at + 1] as usize];
                level.row[at] == target
                    && level.own[at] == own
                    && held.iter().zip(sources).all(|(&held, &source)| held == below.now[source as usize])
            });
            level.now[target as usize] = known.unwrap_or_else(|| {
                let id = level.row.len() as u32;
                level.row.push(target);
                level.own.push(own);
                level.sources.extend(sources.iter().map(|&source| below.now[source as usize]));
                level.offsets.push(level.sources.len() as u32);
                level.found.insert(hash, id);
                id
            });
        }
    }

    /// What was found.
    fn finish(self) -> Graph {
        let Found { levels, inputs, readout } = &self.found;
        let layer = |(below, layer): (usize, &LayerTopology)| {
            let (num_sources, level) = (levels[below].row.len(), &levels[below + 1]);
            layer.edges.with_rows(&level.row, level.sources.clone(), level.own.clone(), num_sources)
        };
        Graph {
            rows: levels[0].row.clone(),
            inputs: inputs.clone(),
            layers: self.topology.layers.iter().enumerate().map(layer).collect(),
            readout: readout.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_was_cleared_holds_nothing_however_often_it_was() {
        let mut table = Table { filling: u32::MAX - 2, ..Table::default() };
        for _ in 0..5 {
            table.clear();
            assert_eq!(table.find(7 << 32, |_| true), None, "filling {}", table.filling);
            (0..2000).for_each(|row| table.insert(u64::from(row) << 32, row));
            assert_eq!(table.find(7 << 32, |row| row == 7), Some(7), "filling {}", table.filling);
        }
    }
}
