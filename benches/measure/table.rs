//! The tables: plain text in columns, a figure with its aim beside it.

/// A table that is printed when it is complete.
#[derive(Debug)]
pub struct Table {
    title: String,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these columns.
    pub fn new(title: impl Into<String>, columns: &[&str]) -> Self {
        Self { title: title.into(), rows: vec![columns.iter().map(|column| (*column).to_owned()).collect()] }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Prints it.
    pub fn print(&self) {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns).map(width).collect();
        if !self.title.is_empty() {
            println!("{}", self.title);
        }
        for row in &self.rows {
            let line: String = row.iter().zip(&widths).map(|(cell, width)| format!("  {cell:<width$}")).collect();
            println!("{}", line.trim_end());
        }
    }
}

/// What a figure is to be.
#[derive(Debug, Clone, Copy)]
pub struct Aim {
    /// What it should be.
    pub wanted: f64,
    /// What it must not be above; the same as `wanted` where there is no room.
    pub at_most: f64,
}

impl Aim {
    /// An aim without room.
    pub fn at_most(limit: f64) -> Self {
        Self { wanted: limit, at_most: limit }
    }

    /// The aim and how the figure stands to it.
    pub fn judge(self, figure: f64, unit: &str) -> String {
        let said = if self.wanted < self.at_most {
            format!("{}, at most {}{unit}", self.wanted, self.at_most)
        } else {
            format!("{}{unit}", self.wanted)
        };
        // A hundredth is what two medians of the same thing differ by.
        let verdict = if figure <= self.wanted + 0.01 * self.wanted {
            "met"
        } else if figure <= self.at_most {
            "within"
        } else {
            "MISSED"
        };
        format!("{said}: {verdict}")
    }
}
