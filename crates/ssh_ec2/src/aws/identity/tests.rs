mod cases;
mod differential;
