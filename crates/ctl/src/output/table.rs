// SPDX-License-Identifier: Apache-2.0
//! Columns of text: cells end in tabs, columns are as wide as their widest
//! cell and three spaces, and at least ten characters.

const PADDING: usize = 3;
const MIN_WIDTH: usize = 10;

/// Lays out lines whose cells are separated by tabs. The last cell of a line
/// is never padded.
#[must_use]
pub fn align(lines: &[String]) -> String {
    align_wide(lines, MIN_WIDTH)
}

/// The same with columns of at least `min_width`.
#[must_use]
pub fn align_wide(lines: &[String], min_width: usize) -> String {
    let rows: Vec<Vec<&str>> = lines.iter().map(|line| line.split('\t').collect()).collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            // Only cells that a tab ends count: the last one of a line may be
            // as long as it likes.
            let cells =
                rows.iter().filter(|row| column + 1 < row.len()).map(|row| row[column].chars().count());
            (cells.max().unwrap_or(0) + PADDING).max(min_width)
        })
        .collect();
    let mut out = String::new();
    for row in &rows {
        for (column, cell) in row.iter().enumerate() {
            out.push_str(cell);
            if column + 1 < row.len() {
                out.extend(std::iter::repeat_n(' ', widths[column] - cell.chars().count()));
            }
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_the_first_minute() {
        let lines = [
            "CONTAINER ID\tIMAGE\tCOMMAND\tCREATED\tSTATUS\tPORTS\tNAMES",
            "128ec8ceab71\thello-world\t\"/hello\"\t14 seconds ago\tExited (0) 13 seconds ago\t\texciting_chebyshev",
        ]
        .map(str::to_owned);
        assert_eq!(
            align(&lines),
            "CONTAINER ID   IMAGE         COMMAND    CREATED          STATUS                      PORTS     NAMES\n\
             128ec8ceab71   hello-world   \"/hello\"   14 seconds ago   Exited (0) 13 seconds ago             exciting_chebyshev\n"
        );
    }

    #[test]
    fn characters_count_not_bytes() {
        assert_eq!(align(&["äääääääää\tx".into(), "a\ty".into()]), "äääääääää   x\na           y\n");
        assert_eq!(align(&[]), "");
    }
}
