//! A file's bytes in pages that images share until one of them changes.

use std::sync::Arc;

/// The unit in which images share their bytes.
pub const PAGE: usize = 4096;

type Page = [u8; PAGE];

/// What a file holds. A clone costs a pointer for each page.
#[derive(Clone, Default)]
pub struct Image {
    /// None is a page of zeros.
    pages: Vec<Option<Arc<Page>>>,
    len: usize,
}

impl From<&[u8]> for Image {
    fn from(bytes: &[u8]) -> Image {
        let mut image = Image::default();
        image.set_len(bytes.len() as u64);
        image.write(0, bytes);
        image
    }
}

impl Image {
    /// Its length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is there.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All its bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len];
        self.read(0, &mut bytes);
        bytes
    }

    /// Reads; false if these bytes reach beyond the end.
    pub fn read(&self, at: u64, out: &mut [u8]) -> bool {
        let Ok(at) = usize::try_from(at) else { return false };
        if at.checked_add(out.len()).is_none_or(|end| end > self.len) {
            return false;
        }
        let mut done = 0;
        while done < out.len() {
            let (page, from, count) = piece(at + done, out.len() - done);
            let into = &mut out[done..done + count];
            match &self.pages[page] {
                Some(page) => into.copy_from_slice(&page[from..from + count]),
                None => into.fill(0),
            }
            done += count;
        }
        true
    }

    /// Writes, and lengthens the file where that is needed.
    ///
    /// # Panics
    /// Where the file would not fit the memory.
    pub fn write(&mut self, at: u64, data: &[u8]) {
        let at = usize::try_from(at).expect("an image fits the memory");
        if at + data.len() > self.len {
            self.set_len((at + data.len()) as u64);
        }
        let mut done = 0;
        while done < data.len() {
            let (page, from, count) = piece(at + done, data.len() - done);
            self.page_mut(page)[from..from + count].copy_from_slice(&data[done..done + count]);
            done += count;
        }
    }

    /// Cuts the file, or lengthens it by zeros.
    ///
    /// # Panics
    /// Where the file would not fit the memory.
    pub fn set_len(&mut self, len: u64) {
        let len = usize::try_from(len).expect("an image fits the memory");
        if len < self.len && !len.is_multiple_of(PAGE) {
            self.page_mut(len / PAGE)[len % PAGE..].fill(0);
        }
        self.pages.resize(len.div_ceil(PAGE), None);
        self.len = len;
    }

    /// Flips one bit, counted from the beginning; none if the file is shorter.
    pub fn flip(&mut self, bit: u64) {
        if bit / 8 < self.len as u64 {
            let at = (bit / 8) as usize;
            self.page_mut(at / PAGE)[at % PAGE] ^= 1 << (bit % 8);
        }
    }

    /// Takes over one page of another image of the same length. It is copied, for both are written again soon.
    pub(super) fn copy_page(&mut self, from: &Image, page: usize) {
        match (self.pages.get_mut(page), from.pages.get(page)) {
            (Some(to), Some(None)) => *to = None,
            (Some(_), Some(Some(from))) => self.page_mut(page).copy_from_slice(&from[..]),
            _ => {}
        }
    }

    fn page_mut(&mut self, page: usize) -> &mut Page {
        Arc::make_mut(self.pages[page].get_or_insert_with(|| Arc::new([0; PAGE])))
    }
}

/// The page of a byte, its place there, and how many of so many bytes lie in that page.
fn piece(at: usize, left: usize) -> (usize, usize, usize) {
    (at / PAGE, at % PAGE, left.min(PAGE - at % PAGE))
}
